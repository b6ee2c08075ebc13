//! Traffic control: what a container with `CAP_NET_ADMIN` sets up to take its packets around hooks.

use anyhow::{Context, Result};
use futures_util::StreamExt;
use rtnetlink::{
    LinkIfb,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        tc::{
            TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
            TcAttribute, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcU32Key, TcU32Selector,
            TcU32SelectorFlags,
        },
    },
};

use super::{Netlink, index};

/// `ETH_P_ALL`, as filters want it.
const EVERYTHING: u16 = 3_u16.to_be();

// === impl Netlink ===

impl Netlink {
    /// Adds an interface that sends on what is redirected to it from where that was, and has the next classifier not
    /// look at it.
    pub async fn add_ifb(&self, name: &str) -> Result<()> {
        let request = self.handle.link().add(LinkIfb::new(name).up().build());
        request.execute().await.with_context(|| format!("cannot add {name}"))
    }

    /// Takes what leaves by an interface to another one: everything, or what was redirected there from a third one.
    pub async fn redirect(&self, from: &str, only_of: Option<&str>, to: &str) -> Result<()> {
        let mut mirror = TcMirror::default();
        mirror.generic.action = TcActionType::Stolen;
        mirror.eaction = TcMirrorActionType::EgressRedir;
        mirror.ifindex = index(to)?;
        let mut action = TcAction::default();
        action.attributes = vec![
            TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
            TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
        ];
        let mut options = vec![TcFilterU32Option::Action(vec![action])];
        options.extend(only_of.map(|name| TcFilterU32Option::Indev([name.as_bytes(), &[0]].concat())));
        self.add_filter(from, options).await
    }

    /// Puts what leaves by an interface into a class.
    pub async fn classify(&self, name: &str, class: u16) -> Result<()> {
        let class = TcHandle { major: 1, minor: class };
        self.add_filter(name, vec![TcFilterU32Option::ClassId(class)]).await
    }

    /// Adds the only filter of what leaves by an interface.
    async fn add_filter(&self, name: &str, mut options: Vec<TcFilterU32Option>) -> Result<()> {
        self.add_classifiers(name).await?;
        let mut everything = TcU32Selector::default();
        everything.flags = TcU32SelectorFlags::Terminal;
        everything.nkeys = 1;
        everything.keys = vec![TcU32Key::default()];
        options.push(TcFilterU32Option::Selector(everything));
        let mut filters = self.handle.traffic_filter(tc_index(name)?);
        let request = filters.add().egress().protocol(EVERYTHING).u32(&options)?;
        let added = request.execute().await;
        added.with_context(|| format!("cannot add a filter to {name}"))
    }

    /// Gives an interface the place where filters are.
    async fn add_classifiers(&self, name: &str) -> Result<()> {
        let mut message = TcMessage::with_index(tc_index(name)?);
        message.header.parent = TcHandle::CLSACT;
        message.header.handle.major = TcHandle::CLSACT.major;
        message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let mut answers = self.handle.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io()).with_context(|| format!("cannot add classifiers to {name}"));
            }
        }
        Ok(())
    }
}

/// Traffic control counts interfaces by signed numbers.
fn tc_index(name: &str) -> Result<i32> {
    i32::try_from(index(name)?).context("the number of an interface is too large")
}
